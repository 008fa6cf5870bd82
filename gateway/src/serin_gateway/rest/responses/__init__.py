"""OpenAI's Responses API: bodies and items in, output items and events out, and what is kept of them."""
