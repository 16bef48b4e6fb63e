"""The meaning of S3 answers: retry, Stopped, NotAllowed, JobError or missing.

boto3 retries 5xx, throttling and broken connections. All other answers are handled here. An answer 2xx without the
headers that every S3 server sends comes from a proxy, a captive portal or another web server.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wavmill.pipeline.errors import AGAIN, Changed, JobError, NotAllowed, NotThere, ObjectFault, Stopped

MISSING = {"NoSuchKey", "404", "NotFound"}
OF_ONE_OBJECT = {"InvalidObjectState", "InvalidRange", "416"}  # it is archived, or shorter than listed
REFUSED = {
    "AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken",
    "InvalidToken", "RequestTimeTooSkewed", "TokenRefreshRequired", "AllAccessDisabled", "401",
}  # fmt: skip
READS = {"GetObject", "HeadObject"}  # operations for which a missing key is a normal answer
SENT = {  # headers that every S3 server sends, by operation, with boto3's names
    "GetObject": {"ETag", "ContentLength"},
    "HeadObject": {"ETag", "ContentLength"},
    "PutObject": {"ETag"},
    "UploadPart": {"ETag"},
    "CreateMultipartUpload": {"UploadId"},
    "CompleteMultipartUpload": {"ETag"},
    "CopyObject": {"CopyObjectResult"},
    "UploadPartCopy": {"CopyPartResult"},
    "ListObjectsV2": {"IsTruncated"},
}
OF_AN_OBJECT = {"Key", "Size", "ETag"}  # of each one in a listing


def check_answer(http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """A boto3 hook for every answer. Stopped for an answer 2xx that is not of an S3 server."""
    if http_response.status_code >= 300:
        return  # boto3 raises it, see translate_s3_errors
    headers = {name.lower(): value for name, value in http_response.headers.items()}
    is_page = headers.get("content-type", "").startswith("text/html")
    of_s3 = any(name.startswith("x-amz-") for name in headers)
    lacks = SENT.get(model.name, set()) - parsed.keys()
    lacks |= {name for found in parsed.get("Contents", ()) for name in OF_AN_OBJECT - found.keys()}
    removed_with_words = model.name == "DeleteObject" and http_response.content.strip() and not of_s3  # S3 sends none
    if lacks or removed_with_words or (http_response.status_code == 200 and is_page and not of_s3):
        kind = headers.get("content-type") or "nothing"
        raise Stopped(
            f"{model.name}: the answer {http_response.status_code} ({kind}) is none of an S3 server's; a proxy, a "
            f"captive portal or another web server may answer in its place; {AGAIN}"
        )


def code_of(error: Any) -> str:
    """S3's error code, else the HTTP status (a proxy's page has no code)."""
    named = error.response.get("Error", {}).get("Code", "")
    return str(named or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


def check_redirect(response: Any, **_: Any) -> None:
    """A boto3 hook for HeadBucket, which boto3 sends after a redirect to find a bucket's region.

    Stopped when that is a redirect without a region as well: boto3 would repeat it for ever.
    """
    if response is None:
        return
    answer = response[0]
    if 300 <= answer.status_code < 400 and "x-amz-bucket-region" not in answer.headers:
        to = answer.headers.get("location", "nowhere")
        raise Stopped(f"the answer {answer.status_code} is a redirect to {to}, and none of an S3 server's; {AGAIN}")


@contextmanager
def translate_s3_errors(where: str, if_match: bool = False) -> Iterator[None]:
    """Translate S3's errors into WavmillErrors; a missing key is NotThere, as in a folder.

    ``if_match``: the request had an etag, so that 412 means another object (Changed).
    """
    from botocore import exceptions as sdk
    from urllib3.exceptions import HTTPError  # the truncated body of an error is passed to us as it is

    try:
        yield
    except sdk.ClientError as error:
        code, action = code_of(error), error.operation_name
        said = error.response.get("Error", {}).get("Message") or "without an explanation"
        if code in MISSING and action in READS:
            raise NotThere(f"{where} is not there; {AGAIN}") from error
        if code in REFUSED:
            raise NotAllowed(f"{where}: {action} was refused: {code}: {said}") from error
        if code in {"NoSuchBucket", "InvalidBucketName"}:
            raise JobError(f"{where}: the bucket does not exist") from error
        if code in {"PreconditionFailed", "412"} and if_match:
            raise Changed(f"{where} was replaced while it was read; {AGAIN}") from error
        if code in OF_ONE_OBJECT and action == "GetObject":
            raise ObjectFault(f"{where}: {code}: {said}") from error
        raise Stopped(f"{where}: {action}: {code}: {said}; {AGAIN}") from error
    except (sdk.NoCredentialsError, sdk.PartialCredentialsError, sdk.CredentialRetrievalError) as error:
        raise NotAllowed(f"{where}: {error}; set AWS_PROFILE, AWS_ACCESS_KEY_ID or a role") from error
    except sdk.ParamValidationError as error:
        raise JobError(f"{where}: {error}") from error
    except Stopped as error:
        if isinstance(error, NotThere | ObjectFault | Changed) or str(error).startswith(where):
            raise
        raise Stopped(f"{where}: {error}") from error
    except (sdk.BotoCoreError, HTTPError, OSError) as error:
        said = str(error).splitlines()
        raise Stopped(f"{where}: {said[0] if said else type(error).__name__}; {AGAIN}") from error
