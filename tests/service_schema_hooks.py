"""What schemathesis cannot know of the service: loaded by it, see test_service_schema.py."""

import schemathesis

FIELDS = ("title", "body")  # of the model that answers; the document cannot name them, as the model changes


@schemathesis.hook
def map_body(context, body):
    """Texts with the model's fields, whatever others hypothesis thought of."""
    if context.operation.path != "/v1/tags" or not isinstance(body, dict):
        return body
    texts = body.get("texts")
    return body | {key: value for key, value in (
        ("text", _with_fields(body.get("text"))),
        ("texts", [_with_fields(text) for text in texts] if isinstance(texts, list) else texts)) if key in body}


def _with_fields(text):
    if not isinstance(text, dict):
        return text
    return dict(zip(FIELDS, text.values(), strict=False))
