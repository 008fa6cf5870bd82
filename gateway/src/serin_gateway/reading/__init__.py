"""Reading answers: text as it comes, apart from reasoning and from calls of tools. Knows text alone."""
