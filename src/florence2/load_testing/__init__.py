"""Load tests of servers that answer questions about pictures, this project's or others, over HTTP. Needs no torch."""
