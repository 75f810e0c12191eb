package main

import (
	"bytes"
	"os"
	"testing"
)

func TestReportIsCommitted(t *testing.T) {
	var now bytes.Buffer
	if err := report(&now, "../../agentaai"); err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile("../../api/agentaai.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(now.Bytes(), committed) {
		t.Error("the public surface has changed: run \"go run ./internal/api > api/agentaai.txt\" and see what breaks")
	}
}
