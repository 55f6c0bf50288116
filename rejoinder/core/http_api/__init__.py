"""Requests and answers of the HTTP routes of single stages, in the form of OpenAI's API.

`parameters.py` refuses what a route does not know. `transcription.py` and `subtitles.py` are the transcriptions,
`speech.py` the speech, `chat.py`, `chat_answer.py` and `stop_text.py` the chat completions.
"""
