package agentaai

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

const (
	domain       = "agenta.ai"
	reasonPrefix = "ERROR_REASON_"
)

// FieldViolation is one rule that one field broke: its path, such as "arguments.guidelines", and a sentence.
type FieldViolation struct{ Field, Description string }

// CallError is a call that ended with a status other than OK. [status.FromError] and [status.Code] read it too.
type CallError struct {
	// Code is the status.
	Code codes.Code
	// Reason is why the service refused the call. UNSPECIFIED if that isn't known, or this version doesn't know it.
	Reason aiv1.ErrorReason
	// NotRun is whether the service says that the tool was not run. If false, it may have run, and been paid for.
	NotRun bool
	// Message is the status's text.
	Message string
	// RetryDelay is the time after which a new attempt makes sense. Zero if unknown.
	RetryDelay time.Duration
	// FieldViolations are the fields of the request that are at fault, if that is why.
	FieldViolations []FieldViolation
	// QuotaViolations are the limits that were used up, if that is why.
	QuotaViolations []*errdetails.QuotaFailure_Violation
	// RequestID is what the server calls the call in its logs. Empty if it didn't say.
	RequestID string

	status *status.Status
}

func newCallError(err error) *CallError {
	said := status.Convert(err)
	failure := &CallError{Code: said.Code(), Message: said.Message(), status: said}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				failure.NotRun = true
				failure.Reason = aiv1.ErrorReason(aiv1.ErrorReason_value[detail.GetReason()])
			}
		case *errdetails.RetryInfo:
			failure.RetryDelay = detail.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			failure.FieldViolations = violations(detail.GetFieldViolations())
		case *errdetails.QuotaFailure:
			failure.QuotaViolations = detail.GetViolations()
		case *errdetails.RequestInfo:
			failure.RequestID = detail.GetRequestId()
		}
	}
	return failure
}

// Error is one sentence for people.
func (e *CallError) Error() string {
	return sentence(cause(e.Reason, e.Code.String()), e.Message, e.FieldViolations, e.RetryDelay)
}

// GRPCStatus is the status as it came, all its details included.
func (e *CallError) GRPCStatus() *status.Status { return e.status }

// ToolError is a tool that ran and failed.
type ToolError struct {
	// Reason is the class of failure, one of those numbered from 100.
	Reason aiv1.ErrorReason
	// Message is what the tool said.
	Message string
	// Retryable is whether the same request may succeed later. Nothing was bought by this one then.
	Retryable bool
	// RetryDelay is the time to wait before that. Zero if unknown.
	RetryDelay time.Duration
	// FieldViolations are the rules that the tool's answer broke, if that is why.
	FieldViolations []FieldViolation
	// Meta tells how the answer came about.
	Meta *aiv1.CallMeta
}

func newToolError(response *aiv1.CallToolResponse) *ToolError {
	failure := response.GetError()
	var texts []string
	for _, block := range response.GetContent() {
		if text := block.GetText(); text != "" {
			texts = append(texts, text)
		}
	}
	return &ToolError{
		Reason:          failure.GetReason(),
		Message:         strings.Join(texts, "\n"),
		Retryable:       failure.GetRetryable(),
		RetryDelay:      failure.GetRetryDelay().AsDuration(),
		FieldViolations: violations(failure.GetFieldViolations()),
		Meta:            response.GetMeta(),
	}
}

// Error is one sentence for people.
func (e *ToolError) Error() string {
	return sentence(cause(e.Reason, "the tool failed"), e.Message, e.FieldViolations, e.RetryDelay)
}

// violations are those of either message that has them.
func violations[V interface {
	GetField() string
	GetDescription() string
}](given []V) []FieldViolation {
	var found []FieldViolation
	for _, each := range given {
		found = append(found, FieldViolation{each.GetField(), each.GetDescription()})
	}
	return found
}

func cause(reason aiv1.ErrorReason, otherwise string) string {
	if reason == aiv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return otherwise
	}
	return strings.TrimPrefix(reason.String(), reasonPrefix)
}

// sentence has the message, and what it leaves out of the details.
func sentence(cause, message string, broken []FieldViolation, retryDelay time.Duration) string {
	said := cause + ": " + message
	for _, each := range broken {
		if !strings.Contains(message, each.Field) {
			said += fmt.Sprintf("; %s: %s", each.Field, each.Description)
		}
	}
	if retryDelay > 0 {
		said += fmt.Sprintf("; try again in %s", retryDelay.Round(time.Millisecond))
	}
	return said
}
