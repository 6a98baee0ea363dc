// Command witness stands on the other side of our witness and of our registrar. Notes, cosignatures, trees and proofs
// are those of golang.org/x/mod/sumdb/note, github.com/transparency-dev/formats and github.com/transparency-dev/merkle;
// the few lines of HTTP between them follow c2sp.org/tlog-witness.
//
//	keygen                                    a log's keys: secret, public
//	log -url URL -witness KEY -key SECRET     grows a log before a witness, and tries what must be refused
//	witness -listen ADDRESS -log KEY          is a witness of a log
//	check -witness KEY -log KEY -note FILE    verifies a cosigned checkpoint
package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/transparency-dev/formats/log"
	f_note "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"golang.org/x/mod/sumdb/note"
)

const origin = "log.example/theirs"

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "wanted keygen, log, witness or check")
		os.Exit(2)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	prefix := flags.String("url", "", "the witness's submission prefix")
	witnessKey := flags.String("witness", "", "the witness's verifier key")
	logKey := flags.String("log", "", "the log's verifier key")
	secret := flags.String("key", "", "the log's secret key")
	listen := flags.String("listen", "", "an address")
	file := flags.String("note", "", "a cosigned checkpoint")
	_ = flags.Parse(os.Args[2:])
	switch os.Args[1] {
	case "keygen":
		skey, vkey, err := note.GenerateKey(rand.Reader, origin)
		must(0, err)
		fmt.Printf("%s\n%s\n", skey, vkey)
	case "log":
		grow(*prefix, *witnessKey, *secret)
	case "witness":
		serve(*listen, *logKey)
	case "check":
		check(*witnessKey, *logKey, *file)
	default:
		fmt.Fprintln(os.Stderr, "unknown command")
		os.Exit(2)
	}
}

// submit gives the answer's status, content type and body.
func submit(prefix string, old uint64, hashes [][]byte, checkpoint []byte) (int, string, string) {
	body := bytes.NewBufferString(fmt.Sprintf("old %d\n", old))
	for _, hash := range hashes {
		fmt.Fprintln(body, base64.StdEncoding.EncodeToString(hash))
	}
	fmt.Fprintln(body)
	body.Write(checkpoint)
	answer := must(http.Post(prefix+"/add-checkpoint", "", body))
	defer answer.Body.Close()
	return answer.StatusCode, answer.Header.Get("Content-Type"), string(must(io.ReadAll(answer.Body)))
}

func grow(prefix, witnessKey, secret string) {
	signer := must(note.NewSigner(secret))
	verifier := must(f_note.NewVerifierForCosignatureV1(witnessKey))
	tree, other := testonly.New(rfc6962.DefaultHasher), testonly.New(rfc6962.DefaultHasher)
	for n := 0; n < 41; n++ {
		tree.AppendData(fmt.Appendf(nil, "leaf %d", n))
		other.AppendData(fmt.Appendf(nil, "other %d", n))
	}
	checkpoint := func(t *testonly.Tree, size uint64) []byte {
		text := log.Checkpoint{Origin: origin, Size: size, Hash: t.HashAt(size)}.Marshal()
		return must(note.Sign(&note.Note{Text: string(text)}, signer))
	}
	old := uint64(0)
	for _, size := range []uint64{1, 2, 2, 3, 7, 8, 21, 40} {
		var hashes [][]byte
		if old > 0 {
			hashes = must(tree.ConsistencyProof(old, size))
		}
		cp := checkpoint(tree, size)
		status, _, lines := submit(prefix, old, hashes, cp)
		if status != http.StatusOK {
			must(0, fmt.Errorf("size %d: status %d, %s", size, status, lines))
		}
		opened := must(note.Open(append(bytes.Clone(cp), lines...), note.VerifierList(verifier)))
		if len(opened.Sigs) != 1 {
			must(0, fmt.Errorf("size %d: %d cosignatures", size, len(opened.Sigs)))
		}
		must(f_note.CoSigV1Timestamp(opened.Sigs[0]))
		old = size
	}
	expect := func(what string, wanted int, old uint64, cp []byte, hashes [][]byte) {
		status, kind, body := submit(prefix, old, hashes, cp)
		size := what == "an old size that is not the witness's"
		if status != wanted || size != (kind == "text/x.tlog.size") || (size && body != "40\n") {
			must(0, fmt.Errorf("%s: status %d, %s, %q; wanted %d", what, status, kind, body, wanted))
		}
	}
	expect("an old size that is not the witness's", 409, 7, checkpoint(tree, 40), must(tree.ConsistencyProof(7, 40)))
	expect("another tree of the same size", 409, 40, checkpoint(other, 40), nil)
	expect("a smaller tree", 400, 40, checkpoint(tree, 21), nil)
	expect("a fork", 422, 40, checkpoint(other, 41), must(other.ConsistencyProof(40, 41)))
	expect("no proof", 422, 40, checkpoint(tree, 41), nil)
	thief, _, err := note.GenerateKey(rand.Reader, origin)
	must(0, err)
	signer = must(note.NewSigner(thief))
	expect("another key", 403, 40, checkpoint(tree, 41), must(tree.ConsistencyProof(40, 41)))
	fmt.Println("all as it should be")
}

func serve(listen, logKey string) {
	skey, vkey, err := note.GenerateKey(rand.Reader, "theirs.example/w")
	must(0, err)
	signer := must(f_note.NewSignerForCosignatureV1(skey))
	verifier := must(note.NewVerifier(logKey))
	var lock sync.Mutex
	var size uint64
	var root []byte
	http.HandleFunc("POST /add-checkpoint", func(w http.ResponseWriter, r *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		body := bufio.NewReader(http.MaxBytesReader(w, r.Body, 64<<10))
		var old uint64
		if _, err := fmt.Fscanf(body, "old %d\n", &old); err != nil {
			w.WriteHeader(400)
			return
		}
		var hashes [][]byte
		for {
			line, err := body.ReadString('\n')
			if err != nil {
				w.WriteHeader(400)
				return
			}
			if line == "\n" {
				break
			}
			hash, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(line, "\n"))
			if err != nil {
				w.WriteHeader(400)
				return
			}
			hashes = append(hashes, hash)
		}
		raw, _ := io.ReadAll(body)
		checkpoint, _, opened, err := log.ParseCheckpoint(raw, verifier.Name(), verifier)
		switch {
		case err != nil:
			w.WriteHeader(403)
		case old != size:
			w.Header().Set("Content-Type", "text/x.tlog.size")
			w.WriteHeader(409)
			fmt.Fprintf(w, "%d\n", size)
		case old > 0 && proof.VerifyConsistency(rfc6962.DefaultHasher, old, checkpoint.Size, hashes, root, checkpoint.Hash) != nil:
			w.WriteHeader(422)
		default:
			size, root = checkpoint.Size, checkpoint.Hash
			signed := must(note.Sign(&note.Note{Text: opened.Text}, signer))
			_, line, _ := bytes.Cut(signed, []byte("\n\n"))
			_, _ = w.Write(line)
		}
	})
	listener := must(net.Listen("tcp", listen))
	fmt.Println(must(f_note.VKeyToCosignatureV1(vkey)))
	must(0, http.Serve(listener, nil))
}

func check(witnessKey, logKey, file string) {
	cosigner := must(f_note.NewVerifierForCosignatureV1(witnessKey))
	verifier := must(note.NewVerifier(logKey))
	opened := must(note.Open(must(os.ReadFile(file)), note.VerifierList(cosigner, verifier)))
	if len(opened.Sigs) != 2 {
		must(0, fmt.Errorf("%d signatures that hold, wanted 2", len(opened.Sigs)))
	}
}
