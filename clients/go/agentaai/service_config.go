package agentaai

import (
	_ "embed"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

//go:embed service_config.json
var sharedServiceConfig string

// ServiceConfig returns the gRPC service config of the clients of all languages: load balancing, health checks and retries.
//
// A call is retried if the server is unavailable, the connection breaks, or the server stops before it has started the
// call, which arrives as CANCELLED. A retry keeps its request_id, so the server runs the tool once: see [NewRequest].
//
// gRPC doesn't retry a stream that has begun. A [Conn] therefore leaves CallToolStream out, and retries a call that has
// [WithProgress] itself, by the same policy. It retries the methods that tools have of their own as it does CallTool.
func ServiceConfig() string { return sharedServiceConfig }

type serviceConfig struct {
	LoadBalancingConfig json.RawMessage `json:"loadBalancingConfig"`
	HealthCheckConfig   json.RawMessage `json:"healthCheckConfig"`
	MethodConfig        []methodConfig  `json:"methodConfig,omitempty"`
}

type methodConfig struct {
	Name        []methodName `json:"name"`
	RetryPolicy retryPolicy  `json:"retryPolicy,omitzero"`
}

type methodName struct {
	Service string `json:"service,omitempty"`
	Method  string `json:"method,omitempty"`
}

// retryPolicy is a gRPC retry policy. The zero value retries nothing.
type retryPolicy struct {
	MaxAttempts          int          `json:"maxAttempts"`
	InitialBackoff       seconds      `json:"initialBackoff"`
	MaxBackoff           seconds      `json:"maxBackoff"`
	BackoffMultiplier    float64      `json:"backoffMultiplier"`
	RetryableStatusCodes []codes.Code `json:"retryableStatusCodes"`
}

// backoff returns the delay before the retry that follows so many others.
func (p retryPolicy) backoff(retries int) time.Duration {
	delay := min(float64(p.MaxBackoff), float64(p.InitialBackoff)*math.Pow(p.BackoffMultiplier, float64(retries)))
	return time.Duration(delay * (0.8 + 0.4*rand.Float64()))
}

// seconds is a duration, in JSON such as "0.1s".
type seconds time.Duration

func (s *seconds) UnmarshalText(text []byte) error {
	read, err := time.ParseDuration(string(text))
	*s = seconds(read)
	return err
}

func (s seconds) MarshalText() ([]byte, error) {
	return []byte(strconv.FormatFloat(time.Duration(s).Seconds(), 'f', -1, 64) + "s"), nil
}

// The service config that gRPC gets, with and without retries, and the policy of the retries that this package makes.
var retriedServiceConfig, unretriedServiceConfig, streamPolicy = splitServiceConfig()

func splitServiceConfig() (retried, unretried string, stream retryPolicy) {
	var config serviceConfig
	if err := json.Unmarshal([]byte(sharedServiceConfig), &config); err != nil {
		panic(err)
	}
	streaming := methodName{aiv1.ToolService_ServiceDesc.ServiceName, "CallToolStream"}
	for i, each := range config.MethodConfig {
		if at := slices.Index(each.Name, streaming); at >= 0 {
			stream = each.RetryPolicy
			each.Name = slices.Delete(each.Name, at, at+1)
		}
		if slices.Contains(each.Name, methodName{streaming.Service, "CallTool"}) {
			each.Name = append(each.Name, methodName{}) // all that are not named
		}
		config.MethodConfig[i].Name = each.Name
	}
	config.MethodConfig = append(config.MethodConfig, methodConfig{Name: []methodName{streaming}})
	retried = marshal(config)
	config.MethodConfig = nil
	return retried, marshal(config), stream
}

func marshal(config serviceConfig) string {
	text, err := json.Marshal(config)
	if err != nil {
		panic(err)
	}
	return string(text)
}
