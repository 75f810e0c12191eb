package agentaai

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

const (
	domain       = "agenta.ai"
	callIDKey    = "x-request-id" // of the trailers of calls that end with OK
	reasonPrefix = "ERROR_REASON_"
)

// FieldViolation is one rule that one field broke: its path, such as "arguments.guidelines", and a sentence.
type FieldViolation struct{ Field, Description string }

// CallError is a call that ended with a status other than OK. [status.FromError] and [status.Code] read it too, and
// [errors.Is] finds [context.DeadlineExceeded], [context.Canceled], [ErrClosed] and the error of a [TokenSource] or of an
// interceptor in it.
type CallError struct {
	// Code is the status code.
	Code codes.Code
	// Reason is why the service refused the call. UNSPECIFIED if the status isn't from the service, or the reason is
	// unknown to this version.
	Reason aiv1.ErrorReason
	// NotRun is whether the tool was certainly not run: the service refused the call, or nothing was sent. If false, the
	// call may have run and may have been billed.
	NotRun bool
	// Message is the status's own text.
	Message string
	// RetryDelay is the time after which a new attempt makes sense. Zero if unknown.
	RetryDelay time.Duration
	// FieldViolations are the fields of the request that are at fault, if that is why.
	FieldViolations []FieldViolation
	// QuotaViolations are the limits that were used up, if that is why.
	QuotaViolations []*errdetails.QuotaFailure_Violation
	// RequestID is the request_id that a call of a tool was sent with. Send the call again with it to get the result of
	// one that may have run. Empty if no tool was called, or without a request_id.
	RequestID string
	// CallID is the id of this call in the server's log. Empty if the server didn't say.
	CallID string

	isTool       bool
	unsent       bool
	notByContext bool // the call's context hadn't ended
	cause        error
	status       *status.Status
}

// FromError returns the [CallError] that is or makes up err: the one that it wraps, or one that is read from its status,
// for connections that weren't made by [Dial]. It returns false if err is nil, or a [ToolError].
func FromError(err error) (*CallError, bool) {
	if err == nil {
		return nil, false
	}
	if found, ok := errors.AsType[*CallError](err); ok {
		return found, true
	}
	if _, ok := errors.AsType[*ToolError](err); ok {
		return nil, false
	}
	return newCallError(err), true
}

func newCallError(err error) *CallError {
	// Also gives the codes of context errors.
	said := status.Convert(err)
	if _, ok := status.FromError(err); !ok {
		said = status.FromContextError(err)
	}
	failure := &CallError{Code: said.Code(), Message: said.Message(), status: said}
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); !ok {
		failure.cause = err
	}
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
			failure.CallID = detail.GetRequestId()
		}
	}
	// The server has no such method, so it ran nothing.
	failure.NotRun = failure.NotRun || failure.Code == codes.Unimplemented
	return failure
}

// unsentError is the error of a call of which nothing was sent.
func unsentError(method string, request any, code codes.Code, message string, cause error) *CallError {
	failure := &CallError{
		Code: code, Message: message, NotRun: true, unsent: true, cause: cause, status: status.New(code, message),
	}
	failure.describe(method, request)
	return failure
}

// closedError is the error of a call that is made after [Conn.Close].
func closedError(method string, request any) *CallError {
	return unsentError(method, request, codes.Canceled, "The client is closed", ErrClosed)
}

// tooLargeError is the error of a call whose request is larger than [MaxRequestBytes].
func tooLargeError(method string, request proto.Message) *CallError {
	message := fmt.Sprintf("The request has %d bytes, and the limit is %d: shorten its arguments",
		proto.Size(request), MaxRequestBytes)
	failure := unsentError(method, request, codes.InvalidArgument, message, nil)
	failure.Reason = aiv1.ErrorReason_ERROR_REASON_REQUEST_TOO_LARGE
	return failure
}

// describe adds what is known of the call.
func (e *CallError) describe(method string, request any) {
	e.isTool = method == aiv1.ToolService_CallTool_FullMethodName || isTyped(method)
	e.RequestID = requestIDOf(request)
}

// Error is one sentence for people.
func (e *CallError) Error() string {
	said := cause(e.Reason, e.Code.String()) + ": " + sentence(e.Message, e.FieldViolations, e.RetryDelay)
	remark := e.remark()
	switch {
	case remark == "":
		return said
	case strings.HasSuffix(said, ".") || strings.HasSuffix(said, "?"):
		return said + " " + remark
	}
	return said + ". " + remark
}

// remark says what became of a call that the service didn't refuse itself.
func (e *CallError) remark() string {
	switch {
	case e.unsent && e.isTool:
		return "Nothing was sent, so the tool was not run."
	case e.unsent:
		return "Nothing was sent."
	case !e.isTool || e.NotRun && e.Reason != aiv1.ErrorReason_ERROR_REASON_UNSPECIFIED:
		return ""
	case e.NotRun:
		return "The tool was not run."
	case e.RequestID == "":
		return "The call may have run and may have been billed."
	}
	return "The call may have run and may have been billed. To get its result, send it again with request_id " +
		e.RequestID + "."
}

// GRPCStatus is the status as it came, with all its details.
func (e *CallError) GRPCStatus() *status.Status { return e.status }

// Unwrap returns the error of the context, of the token source, of an interceptor, or [ErrClosed]; nil if the cause is none
// of them.
func (e *CallError) Unwrap() error { return e.cause }

// Is makes a status that stands for a context error match it. CANCELLED of a server that stops doesn't stand for one.
func (e *CallError) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.Code == codes.DeadlineExceeded
	case context.Canceled:
		return e.Code == codes.Canceled && !e.notByContext && !errors.Is(e.cause, ErrClosed)
	}
	return false
}

// ToolError is a tool that ran and failed.
type ToolError struct {
	// Reason is the class of failure, one of those numbered from 100.
	Reason aiv1.ErrorReason
	// Message is what the tool said.
	Message string
	// Retryable is whether the same request may succeed later. In that case this one was not billed.
	Retryable bool
	// RetryDelay is the time to wait before that. Zero if unknown.
	RetryDelay time.Duration
	// FieldViolations are the rules that the tool's answer broke, if that is why.
	FieldViolations []FieldViolation
	// RequestID is the request_id that the call was sent with.
	RequestID string
	// CallID is the id of this call in the server's log. Empty if the server didn't say.
	CallID string
	// Meta tells how the answer came about.
	Meta *aiv1.CallMeta
}

func newToolError(requestID string, response toolResponse, trailer metadata.MD) *ToolError {
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
		RequestID:       requestID,
		CallID:          strings.Join(trailer.Get(callIDKey), ""),
		Meta:            response.GetMeta(),
	}
}

// Error is one sentence for people.
func (e *ToolError) Error() string {
	return cause(e.Reason, "the tool failed") + ": " + sentence(e.Message, e.FieldViolations, e.RetryDelay)
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
