// Command bf-dump reads task records and writes the chunks they name as a
// stream on stdout. It talks to the source only.
package main

import (
	"bf/lib/cli"
	"bf/lib/lane"
	"bf/lib/stream"
	"bf/lib/task"
)

type flags struct {
	Source   string   `arg:"--source,env:BF_SOURCE" help:"connection string of the source, csv:DIR or exec:COMMAND" placeholder:"CONN"`
	Compress string   `arg:"--compress" default:"none" help:"none, zstd[:LEVEL] or s2" placeholder:"CODEC"`
	Records  []string `arg:"positional" help:"task records; read from stdin, one per line, when there are none" placeholder:"RECORD"`
	cli.Common
}

func (*flags) Description() string {
	return "Dumps the chunks that the task records name: " +
		"one read-only transaction per chunk, one stream on stdout for bf-load."
}

func (*flags) Epilogue() string {
	return "  bf-chunks --target \"$TARGET\" | bf-dump --source \"$SOURCE\" | bf-load --target \"$TARGET\""
}

func main() { cli.Main("bf-dump", &flags{}, run) }

func (f *flags) Check(e *cli.Env) error {
	_, err := stream.ParseCompression(f.Compress)
	switch {
	case err != nil:
		return e.Usagef("--compress: %v", err)
	case f.Source == "":
		return e.Usagef("--source is required (or BF_SOURCE)")
	case cli.IsTerminal(e.Stdout):
		return e.Usagef("stdout is a terminal: pipe the stream into bf-load, or send it to a file")
	case len(f.Records) == 0 && cli.IsTerminal(e.Stdin):
		return e.Usagef("no task records: pipe bf-chunks into it")
	}
	return nil
}

func run(e *cli.Env, f *flags) error {
	codec, err := stream.ParseCompression(f.Compress)
	if err != nil {
		return err
	}
	cli.WidenPipe(e.Stdout)
	records := task.NewReader(e.Stdin)
	if len(f.Records) > 0 {
		records = task.Arguments(f.Records)
	}
	return lane.Dump(e, f.Source, codec, records)
}
