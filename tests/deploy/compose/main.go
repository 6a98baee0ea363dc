// Command compose reads a compose file as `docker compose config` does, with the loader and the schema of the
// compose-spec project, all profiles on, and prints the whole as JSON. What is no compose file ends it with 1.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "wanted a compose file")
		os.Exit(2)
	}
	options := must(cli.NewProjectOptions([]string{os.Args[1]}, cli.WithProfiles([]string{"*"}), cli.WithResolvedPaths(true)))
	project := must(options.LoadProject(context.Background()))
	must(os.Stdout.Write(must(json.MarshalIndent(project, "", "  "))))
}
