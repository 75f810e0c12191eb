package agentaai

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/local"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// Of this repository. The table and the service config are the same for the clients of all languages.
const (
	targetsFile       = "../../../tests/conformance/targets.json"
	serviceConfigFile = "../../../client/agenta_ai/service_config.json"
)

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestTargets(t *testing.T) {
	type row struct {
		Target, Kind string
		Clients      []string
	}
	var rows []row
	if err := json.Unmarshal(read(t, targetsFile), &rows); err != nil {
		t.Fatal(err)
	}
	resolver.Register(manual.NewBuilderWithScheme("agenta-test"))
	rows = append(rows, row{Target: "agenta-test:///somewhere", Kind: "remote"})
	for _, row := range rows {
		if row.Clients != nil && !slices.Contains(row.Clients, "go") {
			row.Kind = "error"
		}
		conn, err := Dial(row.Target)
		if err == nil {
			_ = conn.Close()
			if row.Kind == "error" || isLocal(row.Target) != (row.Kind == "local") {
				t.Errorf("Dial(%q): got local %t, want %s", row.Target, isLocal(row.Target), row.Kind)
			}
			continue
		}
		said := err.Error()
		shown := !strings.Contains(row.Target, "@") && !webAddress.MatchString(row.Target) && row.Target != ""
		if row.Kind != "error" || !strings.Contains(said, ": give host:port") || strings.Contains(said, "secret") ||
			shown && !strings.Contains(said, strconv.Quote(row.Target)) {
			t.Errorf("Dial(%q): got %v, want %s", row.Target, err, row.Kind)
		}
	}
	if len(rows) < 20 {
		t.Errorf("%d rows", len(rows))
	}
}

func TestResolversOfAConnection(t *testing.T) {
	target, _ := serve(t, nil, nil, done())
	named := manual.NewBuilderWithScheme("agenta-dial")
	named.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: target}}})
	conn := dial(t, "agenta-dial:///somewhere", grpc.WithResolvers(named), grpc.WithTransportCredentials(local.NewCredentials()))
	if _, _, err := CallTool[any](t.Context(), conn, newRequest(t)); err != nil {
		t.Error(err)
	}
	if conn, err := Dial("agenta-dial:///somewhere", grpc.WithResolvers(named), grpc.WithPerRPCCredentials(onlyWithTLS{})); err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
	}
	if _, err := Dial("xds:///somewhere", grpc.WithResolvers(manual.NewBuilderWithScheme("xds"))); err == nil {
		t.Error("xds is not refused")
	}
}

// onlyWithTLS are credentials of a call that grpc-go refuses to send in plaintext.
type onlyWithTLS struct{}

func (onlyWithTLS) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, nil
}

func (onlyWithTLS) RequireTransportSecurity() bool { return true }

func TestServiceConfigBesideCredentialsThatRequireTLS(t *testing.T) {
	_, err := Dial("a.example:443", grpc.WithPerRPCCredentials(onlyWithTLS{}), grpc.WithDefaultServiceConfig("{}"))
	if err == nil || !strings.Contains(err.Error(), "WithDefaultServiceConfig") {
		t.Errorf("got %v", err)
	}
}

func TestServiceConfigIsThatOfAllClients(t *testing.T) {
	if shared := string(read(t, serviceConfigFile)); shared != ServiceConfig() {
		t.Errorf("copy %s here", serviceConfigFile)
	}
	var shared, unretried map[string]any
	if err := json.Unmarshal([]byte(ServiceConfig()), &shared); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(unretriedServiceConfig), &unretried); err != nil {
		t.Fatal(err)
	}
	delete(shared, "methodConfig")
	if got, want := encode(t, unretried), encode(t, shared); got != want {
		t.Errorf("without retries: got %s, want %s", got, want)
	}
}

func encode(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
