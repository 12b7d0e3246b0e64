"""What is live under a release name, answering over HTTP."""
