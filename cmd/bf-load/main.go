// Command bf-load reads a stream of bf-dump from stdin and loads it, one
// transaction per chunk. It talks to the target only.
package main

import (
	"bf/lib/cli"
	"bf/lib/lane"
)

type flags struct {
	Target string `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	Force  bool   `arg:"--force" help:"load tasks again that are done; empty a range for which a command printed no rows"`
	cli.Common
}

func (*flags) Description() string {
	return "Loads the chunks of a stream: each in one transaction that replaces what the target held in the " +
		"task's range and marks the task as done.\n" +
		"Prints a result record per task."
}

func (*flags) Epilogue() string {
	return "  bf-chunks --target \"$TARGET\" | bf-dump --source \"$SOURCE\" | bf-load --target \"$TARGET\""
}

func main() { cli.Main("bf-load", &flags{}, run) }

func (f *flags) Check(e *cli.Env) error {
	switch {
	case f.Target == "":
		return e.Usagef("--target is required (or BF_TARGET)")
	case cli.IsTerminal(e.Stdin):
		return e.Usagef("stdin is a terminal: pipe bf-dump into it")
	}
	return nil
}

func run(e *cli.Env, f *flags) error { return lane.Load(e, f.Target, f.Force) }
