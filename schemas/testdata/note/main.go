// Command note checks the seals of a store with golang.org/x/mod/sumdb/note, a note verifier that is not ours.
//
//	cd schemas/testdata/note && go run . -store ../v1/store -keys ../v1/trust.yaml
//
// It takes each log's public key from the trust file, checks the signature of every seal, that each names the
// SHA-256 of the one before, and that the files that it names have the length and SHA-256 that it states. It knows
// nothing of Parquet, leaves or content. It ends with 0 where all of that holds, else with 1.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

func main() {
	store := flag.String("store", "../v1/store", "the store's folder")
	keys := flag.String("keys", "../v1/trust.yaml", "the trust file")
	flag.Parse()
	trusted, err := readTrust(*keys)
	if err != nil {
		fail(err)
	}
	seals, err := findSeals(*store)
	if err != nil {
		fail(err)
	}
	if len(seals) == 0 {
		fail(errors.New("no seal found: nothing was checked"))
	}
	var faults int
	previous := map[string]string{}
	for _, path := range seals {
		if err := check(*store, path, trusted, previous); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			faults++
		}
	}
	if faults > 0 {
		fail(fmt.Errorf("%d of %d seals do not hold", faults, len(seals)))
	}
	fmt.Printf("%d seals hold\n", len(seals))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// readTrust reads the public key of each gateway. It reads only the plain form that the vectors use.
func readTrust(path string) (map[string][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	field := regexp.MustCompile(`(?m)^\s*(?:- )?(deployment|name|key): *"?([^"\s]+)"?\s*$`)
	keys := map[string][]byte{}
	var deployment, name string
	for _, match := range field.FindAllStringSubmatch(string(text), -1) {
		switch match[1] {
		case "deployment":
			deployment = match[2]
		case "name":
			name = match[2]
		case "key":
			key, err := base64.StdEncoding.DecodeString(match[2])
			if err != nil || len(key) != 32 {
				return nil, fmt.Errorf("%s: the key of %s is not base64 of 32 bytes", path, name)
			}
			keys[deployment+"/"+name] = key
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: no gateway with a key", path)
	}
	return keys, nil
}

func findSeals(store string) ([]string, error) {
	var seals []string
	err := filepath.WalkDir(store, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".seal") {
			name, err := filepath.Rel(store, path)
			if err != nil {
				return err
			}
			seals = append(seals, filepath.ToSlash(name))
		}
		return err
	})
	sort.Strings(seals)
	return seals, err
}

// verifierKey writes a key as sumdb/note wants it: <name>+<key id>+<base64(0x01 || public key)>.
func verifierKey(name string, public []byte) string {
	typed := append([]byte{1}, public...)
	sum := sha256.Sum256(append([]byte(name+"\n"), typed...))
	id := binary.BigEndian.Uint32(sum[:4])
	return fmt.Sprintf("%s+%08x+%s", name, id, base64.StdEncoding.EncodeToString(typed))
}

func check(store, name string, trusted map[string][]byte, previous map[string]string) error {
	signed, err := os.ReadFile(filepath.Join(store, name))
	if err != nil {
		return err
	}
	folder := filepath.ToSlash(filepath.Dir(name))
	parts := strings.Split(folder, "/")
	if len(parts) != 3 {
		return fmt.Errorf("`%s` is not an origin", folder)
	}
	public, ok := trusted[parts[0]+"/"+parts[1]]
	if !ok {
		return fmt.Errorf("no trusted key for %s/%s", parts[0], parts[1])
	}
	verifier, err := note.NewVerifier(verifierKey(folder+"/seal", public))
	if err != nil {
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	seal, err := parse(opened.Text)
	if err != nil {
		return err
	}
	if seal.origin != folder {
		return fmt.Errorf("the seal is of `%s`", seal.origin)
	}
	if want := fmt.Sprintf("%s/%010d.seal", folder, seal.batch); want != name {
		return fmt.Errorf("the seal belongs under `%s`", want)
	}
	expected := previous[folder]
	if expected == "" {
		expected = "none"
	}
	sum := sha256.Sum256(signed)
	previous[folder] = hex.EncodeToString(sum[:])
	if seal.previous != expected {
		return fmt.Errorf("previous is %s, wanted %s", seal.previous, expected)
	}
	for _, file := range seal.files {
		data, err := os.ReadFile(filepath.Join(store, folder, file.name))
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(data); uint64(len(data)) != file.length || hex.EncodeToString(sum[:]) != file.sha256 {
			return fmt.Errorf("`%s` does not have the length and SHA-256 that the seal states", file.name)
		}
	}
	return nil
}

type file struct {
	name, sha256 string
	length       uint64
}

type seal struct {
	origin, previous string
	batch            uint64
	files            []file
}

// parse reads the lines of a seal's text that are checked here (FORMAT.md 5.2).
func parse(text string) (*seal, error) {
	lines := strings.Split(text, "\n")
	next := func(prefix string) (string, error) {
		if len(lines) == 0 || !strings.HasPrefix(lines[0], prefix) {
			return "", fmt.Errorf("a line does not begin with `%s`", prefix)
		}
		value := strings.TrimPrefix(lines[0], prefix)
		lines = lines[1:]
		return value, nil
	}
	var s seal
	var values []string
	for _, prefix := range []string{"affidavit/seal/v1", "", "batch ", "range ", "root ", "compact "} {
		value, err := next(prefix)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	if values[0] != "" {
		return nil, errors.New("another first line")
	}
	s.origin = values[1]
	var err error
	if s.batch, err = strconv.ParseUint(values[2], 10, 64); err != nil {
		return nil, err
	}
	nodes, err := strconv.Atoi(values[5])
	if err != nil || nodes > len(lines) || nodes < 0 {
		return nil, errors.New("compact is not a number of lines")
	}
	lines = lines[nodes:]
	count, err := next("files ")
	if err != nil {
		return nil, err
	}
	files, err := strconv.Atoi(count)
	if err != nil || files > len(lines) || files < 1 {
		return nil, errors.New("files is not a number of lines")
	}
	for _, line := range lines[:files] {
		fields := strings.Split(line, " ")
		if len(fields) != 3 || strings.ContainsAny(fields[0], "/\\") {
			return nil, errors.New("a file's line is not `<name> <length> <sha256>`")
		}
		length, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, file{fields[0], fields[2], length})
	}
	lines = lines[files:]
	if s.previous, err = next("previous "); err != nil {
		return nil, err
	}
	if !bytes.HasSuffix([]byte(text), []byte("\n")) {
		return nil, errors.New("the text does not end with a newline")
	}
	return &s, nil
}
