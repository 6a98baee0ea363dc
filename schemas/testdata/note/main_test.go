package main

import (
	"os"
	"path/filepath"
	"testing"
)

// load copies the vectors' seals and files into a folder of the test's own.
func load(t *testing.T) (string, map[string][]byte, []string) {
	t.Helper()
	store := t.TempDir()
	if err := os.CopyFS(store, os.DirFS("../v1/store")); err != nil {
		t.Fatal(err)
	}
	trusted, err := readTrust("../v1/trust.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seals, err := findSeals(store)
	if err != nil || len(seals) != 3 {
		t.Fatal(len(seals), err)
	}
	return store, trusted, seals
}

func faults(store string, trusted map[string][]byte, seals []string) int {
	previous := map[string]string{}
	n := 0
	for _, name := range seals {
		if check(store, name, trusted, previous) != nil {
			n++
		}
	}
	return n
}

func TestSealsOfTheVectorsHold(t *testing.T) {
	store, trusted, seals := load(t)
	if n := faults(store, trusted, seals); n != 0 {
		t.Fatalf("%d faults", n)
	}
}

func TestEveryChangedByteOfASealIsSeen(t *testing.T) {
	store, trusted, seals := load(t)
	for _, name := range seals {
		path := filepath.Join(store, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		for i := range whole {
			changed := append([]byte{}, whole...)
			changed[i] ^= 1
			if err := os.WriteFile(path, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			if faults(store, trusted, seals) == 0 {
				t.Fatalf("%s: byte %d", name, i)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for gateway := range trusted {
		trusted[gateway][0] ^= 1
	}
	if faults(store, trusted, seals) != 3 {
		t.Fatal("another key")
	}
}
