"""The application: middleware, keys, bounds, logs and the process; knows no API's dialect."""
