// Command bf-clean drops schema __backfill from the target.
package main

import (
	"context"
	"io"
	"os"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
)

const name = "bf-clean"

type flags struct {
	Target string `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	Force  bool   `arg:"--force" help:"also when tasks are pending"`
	cli.Common
}

func (flags) Description() string {
	return "Drops schema __backfill from the target, when the backfill is done and verified."
}

func (flags) Version() string { return name }

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, _ io.Reader, stdout, stderr io.Writer) int {
	var f flags
	if done, status := cli.Parse(name, &f, args, stdout, stderr); done {
		return status
	}
	if f.Target == "" {
		return cli.BadUsage(name, stderr, "--target is required (or BF_TARGET)")
	}
	log := cli.NewLog(name, stderr, f.Common)
	ctx := context.Background()
	c, err := pg.Connect(ctx, pg.Target, f.Target, pg.Options{Application: name, Log: log.Info})
	if err != nil {
		log.Error(err)
		return cli.Failed
	}
	defer c.Close()
	if err := queue.Check(ctx, c); err != nil {
		log.Error(err)
		return cli.Failed
	}
	all, pending, err := queue.Count(ctx, c)
	if err != nil {
		log.Error(err)
		return cli.Failed
	}
	if pending > 0 && !f.Force {
		log.Warn("target: %d of %d tasks are pending", pending, all)
		log.Warn("hint: finish them (bf-chunks --pending lists them), or give --force")
		return cli.Failed
	}
	if err := queue.Drop(ctx, c); err != nil {
		log.Error(err)
		return cli.Failed
	}
	log.Info("dropped __backfill with %d tasks, %d of them pending", all, pending)
	return cli.OK
}
