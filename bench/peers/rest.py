"""The tool as a REST endpoint of FastAPI, with an API key, a permission and a rate limit.

``python -m bench.peers.rest uvicorn`` runs it on uvicorn, ``granian`` on granian. One HTTP client serves all calls.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import httpx
from bench.peers.hosting import on_granian, on_uvicorn
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


def app() -> FastAPI:
    client = httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    async def call_tool(call: Call, _: Annotated[None, Depends(limited)]) -> Answer:
        return await refine(client, call.arguments)

    made = FastAPI(lifespan=lifespan)
    made.add_api_route("/tools/call", call_tool, methods=["POST"])
    return made


if __name__ == "__main__":
    serve = on_granian if sys.argv[1] == "granian" else on_uvicorn
    serve(app())
