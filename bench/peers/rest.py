"""The tool as a REST endpoint: FastAPI on uvicorn, with an API key, a permission and a rate limit.

``python -m bench.peers.rest fresh`` makes an HTTP client for each call, as endpoints often do; ``shared`` has one.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import httpx
import uvicorn
from bench.peers.work import LIMITS, NAME, TIMEOUT, Answer, Arguments, refine
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from throttled.asyncio import MemoryStore, RateLimiterType, Throttled, per_min

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# It does its work, and refuses nobody.
limiter = Throttled(using=RateLimiterType.GCRA.value, quota=per_min(1_000_000, burst=100_000), store=MemoryStore())


class Principal(BaseModel):
    organization: str
    permissions: list[str]


PRINCIPALS = {
    hashlib.sha256(os.environ["API_KEY"].encode()).hexdigest(): Principal(
        organization="organization 0", permissions=["edit_workflows"]
    )
}


class Call(BaseModel):
    name: Literal["tools.agenta.api.refine_prompt"]
    arguments: Arguments


async def permitted(authorization: Annotated[str, Header()]) -> Principal:
    scheme, _, key = authorization.partition(" ")
    principal = PRINCIPALS.get(hashlib.sha256(key.encode()).hexdigest())
    if scheme != "ApiKey" or principal is None:
        raise HTTPException(401, "Wrong credentials.")
    if "edit_workflows" not in principal.permissions:
        raise HTTPException(403, "Not permitted.")
    return principal


async def limited(principal: Annotated[Principal, Depends(permitted)]) -> None:
    if (await limiter.limit(f"{principal.organization}:{NAME}")).limited:
        raise HTTPException(429, "Too many calls.")


async def with_fresh_client(call: Call, _: Annotated[None, Depends(limited)]) -> Answer:
    async with httpx.AsyncClient(timeout=TIMEOUT) as client:
        return await refine(client, call.arguments)


def with_shared_client() -> FastAPI:
    client = httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    async def with_client(call: Call, _: Annotated[None, Depends(limited)]) -> Answer:
        return await refine(client, call.arguments)

    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/tools/call", with_client, methods=["POST"])
    return app


def with_fresh_clients() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/tools/call", with_fresh_client, methods=["POST"])
    return app


if __name__ == "__main__":
    uvicorn.run(with_shared_client() if sys.argv[1] == "shared" else with_fresh_clients(), port=0, backlog=4096)
