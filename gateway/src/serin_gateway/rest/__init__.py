"""The REST door: the OpenAI API over HTTP/1.1, translated to asks and back. Decides nothing by itself."""
