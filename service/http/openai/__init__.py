"""The part of OpenAI's API that chat clients use: chat completions and models, with errors in OpenAI's shape."""
