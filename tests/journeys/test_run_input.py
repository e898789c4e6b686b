"""What a run finds as its input: ``shouldPassActorInput`` of standby runs, and secret fields."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from journeys.greenroom import Greenroom, actor_folder, error_of

SCHEMA = {
    "title": "Input",
    "type": "object",
    "schemaVersion": 1,
    "properties": {"greeting": {"title": "Greeting", "type": "string", "description": "", "default": "hello"}},
}


SECRET = {"type": "object", "properties": {"password": {"type": "string", "isSecret": True}}}
TELLS = """
import json, os
print("KEY", json.dumps([os.environ[f"APIFY_INPUT_SECRETS_PRIVATE_KEY_{part}"] for part in ("FILE", "PASSPHRASE")]))
"""


@pytest.mark.slow
async def test_a_run_has_the_key_to_its_secret_input(tmp_path: Path) -> None:
    """The same key after a restart of Greenroom, which finds it again."""
    async with Greenroom(tmp_path / "data") as greenroom:
        actor = await greenroom.push(actor_folder(tmp_path, "secretive", main=TELLS, input=SECRET))
        keys = set()
        for attempt in range(2):
            if attempt:
                await greenroom.stop()
                greenroom.start()
                await greenroom.wait_until_ready()
            path = f"/actors/{actor['id']}/runs"
            run = await greenroom.data_of("POST", path, json={"password": "hunter22"})
            assert (await greenroom.ended(run["id"]))["status"] == "SUCCEEDED"
            log = await greenroom.log_of(run["id"])
            file, passphrase = json.loads(
                next(line for line in log.splitlines() if "KEY [" in line).partition("KEY ")[2]
            )
            keys.add(file)
            key = load_pem_private_key(base64.b64decode(file), passphrase.encode())
            assert isinstance(key, rsa.RSAPrivateKey)
            record = await greenroom.api("GET", f"/key-value-stores/{run['defaultKeyValueStoreId']}/records/INPUT")
            kind, wrapped, _ = record.json()["password"].split(":")
            assert kind == "ENCRYPTED_VALUE"
            oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
            assert len(key.decrypt(base64.b64decode(wrapped), oaep)) == 48
        assert len(keys) == 1


@pytest.mark.parametrize("passes", [True, False])
async def test_the_input_of_a_standby_run(tmp_path: Path, passes: bool) -> None:
    """With it the schema's defaults, there before its program; without it no record at all."""
    async with Greenroom(tmp_path / "data") as greenroom:
        actor = await greenroom.push(
            actor_folder(tmp_path, "passed", {"shouldPassActorInput": passes}, usesStandbyMode=True, input=SCHEMA)
        )
        env = (await greenroom.call("passed", "/env")).json()["env"]
        assert env["ACTOR_INPUT_KEY"] == "INPUT"
        (run,) = await greenroom.runs_of(actor)
        assert run["defaultKeyValueStoreId"] == env["ACTOR_DEFAULT_KEY_VALUE_STORE_ID"]
        path = f"/key-value-stores/{run['defaultKeyValueStoreId']}/records/{env['ACTOR_INPUT_KEY']}"
        answer = await greenroom.api("GET", path)
        if passes:
            assert answer.json() == {"greeting": "hello"}
            assert answer.headers["content-type"] == "application/json; charset=utf-8"
        else:
            assert error_of(answer) == (404, "record-not-found")
