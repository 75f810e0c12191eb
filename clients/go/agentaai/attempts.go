package agentaai

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

// unknownDelay is how long a limited call waits if the server doesn't say.
const unknownDelay = time.Second

// attempts are those of one call that gRPC doesn't make itself: after a rate limit, and after a stream broke.
type attempts struct {
	conn         *grpc.ClientConn
	waitForLimit bool
	report       func(*aiv1.Progress) // nil if the call is unary
	policy       retryPolicy          // of streams
	lost         int                  // retries by the policy since the last rate limit
}

func (c *Conn) attempts(request any, options []grpc.CallOption) *attempts {
	made := &attempts{conn: c.conn, waitForLimit: c.waitForLimit}
	report := reportOf(options)
	if _, isTool := request.(*aiv1.CallToolRequest); isTool && report != nil {
		made.report, made.policy = report, c.streamPolicy
	}
	return made
}

// delayAfter returns how long to wait until the call is sent again, and false if it isn't.
func (a *attempts) delayAfter(ctx context.Context, failure *CallError, pushback []string) (time.Duration, bool) {
	told, given := time.Duration(0), len(pushback) > 0
	if given {
		milliseconds, err := strconv.Atoi(pushback[0])
		if err != nil || milliseconds < 0 {
			return 0, false
		}
		told = time.Duration(milliseconds) * time.Millisecond
	}
	switch {
	case failure.Reason == aiv1.ErrorReason_ERROR_REASON_RATE_LIMITED:
		a.lost = 0
		return delayAfterLimit(ctx, failure.RetryDelay, a.waitForLimit)
	case a.lost+1 >= a.policy.MaxAttempts || !slices.Contains(a.policy.RetryableStatusCodes, failure.Code):
		return 0, false
	case !given:
		told = a.policy.backoff(a.lost)
	}
	a.lost++
	return told, ctx.Err() == nil
}

// delayAfterLimit returns false if the delay would outlast the deadline.
func delayAfterLimit(ctx context.Context, delay time.Duration, waits bool) (time.Duration, bool) {
	if delay <= 0 {
		delay = unknownDelay
	}
	// Calls that were refused together must not come back together.
	jitter := rand.N(max(delay/2, 100*time.Millisecond))
	if deadline, found := ctx.Deadline(); found {
		spare := time.Until(deadline) - delay
		if spare <= 0 {
			return 0, false
		}
		jitter = min(jitter, spare/2)
	}
	return delay + jitter, waits
}

// sleep returns the error of ctx if that ends first.
func sleep(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}
