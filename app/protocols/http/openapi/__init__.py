"""The description of the HTTP port as an OpenAPI document."""
