"""Language model engines: llama.cpp, vLLM and any server with the OpenAI API. Start at `llama_cpp.py`.

`deployments/llm.py` chooses the engine. The engines share `chat_template.py` (prompts), `delta_writer.py` (coalescing
tokens) and `thread_stream.py` (streaming from a blocking call).
"""
