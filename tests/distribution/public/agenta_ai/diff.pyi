from agenta_ai.terminal import printable as printable
from dataclasses import dataclass
from typing import Literal

@dataclass(frozen=True, slots=True)
class MessageChange:
    index: int
    role: str
    old: str
    new: str
    def lines(self) -> list[str]: ...
    def words(self) -> list[tuple[Literal['=', '-', '+'], str]]: ...

def diff_messages(old: object, new: object) -> list[MessageChange]: ...
def text_of(content: object) -> str: ...
