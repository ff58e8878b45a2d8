"""`encode_nursery` for processes that write to S3."""

import s3fs  # noqa: F401 (so that the processes needn't)
from encode_nursery import encode, serve

if __name__ == "__main__":
    serve(encode)
