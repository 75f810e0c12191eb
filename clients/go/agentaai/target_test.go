package agentaai

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
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
	var rows []struct{ Target, Kind string }
	if err := json.Unmarshal(read(t, targetsFile), &rows); err != nil {
		t.Fatal(err)
	}
	// Names that gRPC writes with a scheme.
	for target, kind := range map[string]string{
		"dns:///localhost:50051": "local", "dns:localhost:1": "local", "dns:///agenta.example:1": "remote",
		"dns://10.0.0.1/localhost:1": "remote", "[::ffff:127.0.0.1]:1": "remote", "127.0.0.1:1 ": "error",
		"127.0.0.1:1\n": "error", "localhost:1@agenta.example:1": "error",
		"ipv4:127.0.0.1:1": "error", "ipv6:[::1]:1": "error", "vsock:2:1": "error", "xds:///agenta": "error",
	} {
		rows = append(rows, struct{ Target, Kind string }{target, kind})
	}
	for _, row := range rows {
		conn, err := Dial(row.Target)
		if (err != nil) != (row.Kind == "error") {
			t.Errorf("Dial(%q) gave %v", row.Target, err)
		}
		if err != nil && !strings.Contains(err.Error(), "host:port") {
			t.Errorf("Dial(%q) doesn't say what to give: %v", row.Target, err)
		}
		if err == nil {
			_ = conn.Close()
		}
		if isLocal(row.Target) != (row.Kind == "local") {
			t.Errorf("isLocal(%q) is %t", row.Target, isLocal(row.Target))
		}
	}
	if len(rows) < 20 {
		t.Errorf("%d rows", len(rows))
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
