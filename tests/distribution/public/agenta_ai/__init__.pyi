from agenta_ai.client import Client as Client
from agenta_ai.diff import MessageChange as MessageChange, diff_messages as diff_messages
from agenta_ai.errors import AgentaError as AgentaError, CallFailed as CallFailed, InvalidInput as InvalidInput, ToolFailed as ToolFailed
from agenta_ai.meta import Attempt as Attempt, CallMeta as CallMeta, FieldViolation as FieldViolation
from agenta_ai.requests import REFINE_PROMPT as REFINE_PROMPT
from agenta_ai.results import AudioContent as AudioContent, Content as Content, Icon as Icon, ImageContent as ImageContent, RateLimit as RateLimit, RateLimiterState as RateLimiterState, RefinedPrompt as RefinedPrompt, ResourceLink as ResourceLink, ServiceState as ServiceState, ServiceStatus as ServiceStatus, TextContent as TextContent, Tool as Tool, ToolAnnotations as ToolAnnotations, ToolError as ToolError, ToolResult as ToolResult, ToolStatus as ToolStatus
from agenta_ai.service_config import SERVICE_CONFIG as SERVICE_CONFIG
from agenta_ai.sync import SyncClient as SyncClient
from agenta_ai.version import __version__ as __version__

__all__ = ['__version__', 'Client', 'MessageChange', 'diff_messages', 'AgentaError', 'CallFailed', 'InvalidInput', 'ToolFailed', 'Attempt', 'CallMeta', 'FieldViolation', 'REFINE_PROMPT', 'AudioContent', 'Content', 'Icon', 'ImageContent', 'RateLimit', 'RateLimiterState', 'RefinedPrompt', 'ResourceLink', 'ServiceState', 'ServiceStatus', 'TextContent', 'Tool', 'ToolAnnotations', 'ToolError', 'ToolResult', 'ToolStatus', 'SERVICE_CONFIG', 'SyncClient']
