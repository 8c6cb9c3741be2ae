"""The service: tags at once, jobs that outlive a request, and a page. `python -m service`, with `deployment` on the path."""
