"""Without vLLM installed, the error names the command that installs it."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from deployments.llm import open_engine
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import parse_settings


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    """Without vLLM, the error names the command to run.

    It is raised before a process starts or a model is looked up.
    """
    settings = parse_settings({"llm": {"engine": "vllm", "model": "some/model"}})
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[vllm\]'") as caught:
        open_engine(settings)
    assert caught.value.field == "args.llm.engine"
