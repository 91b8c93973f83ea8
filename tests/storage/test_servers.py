import os
import subprocess
import sys


def test_every_location_starts_empty_and_its_name_is_hard(location):
    url, storage_options = location

    assert url.endswith("run [1] ä")
    assert storage_options is None or set(storage_options) == {"endpoint_url", "key", "secret"}


def test_a_server_answers_requests_of_another_process(s3_server):
    url = s3_server.url("x")
    bucket = url.split("/")[2]
    code = (
        "import boto3; c = boto3.client('s3');"
        f"c.put_object(Bucket='{bucket}', Key='x/a', Body=b'1234'); c.close()"
    )

    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **s3_server.environ}, check=True
    )

    assert s3_server.keys(url) == {"x/a": 4}
