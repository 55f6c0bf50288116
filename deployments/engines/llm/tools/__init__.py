"""Tools in the forms of the language model engines: messages of chat completions, and a grammar of calls."""
