"""What any API asks for: pictures and prompts in, results out; knows no API."""
