"""Language model engines: llama.cpp, vLLM and any server with the OpenAI API. Start at `llama_cpp.py`."""
