"""What a client does with a cluster: apply, find, watch, read. Importing this imports no client library."""
