"""A stand-in for S3: moto's, over HTTP on a port of its own."""

import logging
import threading

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class S3:
    """Serves while the block lasts. `fault` is asked before each request, with its method and path, and may return the code
    of a refusal. (moto's own ThreadedMotoServer has no place for that; the application is the same.)"""

    def __enter__(self) -> "S3":
        moto = DomainDispatcherApplication(create_backend_app)
        self.fault = lambda method, path: None

        def application(environ, start_response):
            code = self.fault(environ["REQUEST_METHOD"], environ["PATH_INFO"])
            if not code:
                return moto(environ, start_response)
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = f"<Error><Code>{code}</Code><Message>a fault of the test</Message></Error>".encode()
            start_response(f"{403 if code == 'AccessDenied' else 400} Refused",
                           [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body if environ["REQUEST_METHOD"] != "HEAD" else b""]

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, application, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.environment = {"AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
                            "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
        self.client = boto3.client("s3", endpoint_url=self.url, aws_access_key_id="test", aws_secret_access_key="test",
                                   region_name="us-east-1")
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
