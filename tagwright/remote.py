"""How S3 is reached, for models and for rows alike, and the bar over the bytes of a transfer."""

from collections.abc import Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

from tagwright.errors import TagwrightError


def s3_client(place: str):
    """A client of S3, set up as AWS's own tools are (AWS_PROFILE, AWS_ACCESS_KEY_ID and so on; AWS_ENDPOINT_URL for others'
    S3). Raises TagwrightError, naming `place`, where boto3 is not installed or what is set up makes no sense."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise TagwrightError(f"{place}: s3:// needs boto3; pip install boto3") from None
    with s3_errors(place):
        return boto3.client("s3", config=Config(connect_timeout=10))


@contextmanager
def s3_errors(place: str, absent: str | None = None) -> Iterator[None]:
    """Make a TagwrightError of what boto3 raises; `absent` is its text for an object that is not there."""
    from boto3.exceptions import Boto3Error
    from botocore import exceptions

    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise TagwrightError(f"{place}: no credentials ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                             "AWS_PROFILE") from None
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        raise TagwrightError(f"{place}: S3 cannot be reached: {error}") from None
    except (exceptions.ClientError, exceptions.BotoCoreError, Boto3Error) as error:
        # upload_file wraps the answer in an exception that has only its text
        answer = error.__context__ if isinstance(error, Boto3Error) else error
        code = answer.response["Error"]["Code"] if isinstance(answer, exceptions.ClientError) else ""
        if code in ("404", "NoSuchKey") and absent:
            raise TagwrightError(absent) from None
        if code == "NoSuchBucket":
            raise TagwrightError(f"{place}: there is no such bucket; make it first, or check AWS_ENDPOINT_URL") from None
        if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
            raise TagwrightError(f"{place}: no access ({code}); pulling needs s3:GetObject, publishing also s3:ListBucket, "
                                 "s3:PutObject and s3:DeleteObject") from None
        raise TagwrightError(f"{place}: {error}") from None


def bytes_bar(what: str, total: int | None) -> tqdm:
    return tqdm(desc=what, total=total, unit="B", unit_scale=True, disable=None, leave=False)
