// Command bf-clone-schema makes an empty target like the source, between
// versions and editions of TimescaleDB and from plain PostgreSQL.
package main

import (
	"context"
	"io"
	"os"

	"bf/lib/cli"
	"bf/lib/schema"
)

const name = schema.Name

type flags struct {
	Source       string   `arg:"--source,env:BF_SOURCE" help:"connection string of the source" placeholder:"CONN"`
	Target       string   `arg:"--target,env:BF_TARGET" help:"connection string of the target, a new database" placeholder:"CONN"`
	Hypertables  []string `arg:"--hypertable,separate" help:"a plain table to become a hypertable; repeatable" placeholder:"TABLE=COLUMN[,INTERVAL]"`
	Print        bool     `arg:"--print" help:"write the SQL script instead of running it"`
	SchemaOnly   bool     `arg:"--schema-only" help:"without the rows of plain tables and the values of sequences"`
	LeaveOut     bool     `arg:"--leave-out" help:"make the target without what cannot come"`
	NoOwner      bool     `arg:"-O,--no-owner" help:"all belongs to the role of the target"`
	NoPrivileges bool     `arg:"-x,--no-privileges" help:"nothing is granted"`
	cli.Common
}

func (flags) Description() string {
	return "Makes an empty target like the source: types, functions, tables, keys, indexes, privileges, and in the " +
		"target's language hypertables, compression, continuous aggregates and jobs, all jobs paused.\n" +
		"Plain tables come with their rows as of now. What cannot come is named before anything is made; " +
		"all is made in one transaction."
}

func (flags) Epilogue() string {
	return "  bf-clone-schema --source \"$SOURCE\" --target \"$TARGET\"\n" +
		"  bf-clone-schema --source \"$SOURCE\" --target \"$TARGET\" --print --schema-only >schema.sql\n" +
		"  bf-clone-schema --source \"$PLAIN\" --target \"$TARGET\" --hypertable 'metrics=time,1 day'"
}

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, _ io.Reader, stdout, stderr io.Writer) int {
	var f flags
	if done, status := cli.Parse(name, &f, args, stdout, stderr); done {
		return status
	}
	switch {
	case f.Source == "":
		return cli.BadUsage(name, stderr, "--source is required (or BF_SOURCE)")
	case f.Target == "":
		return cli.BadUsage(name, stderr, "--target is required (or BF_TARGET)")
	}
	log := cli.NewLog(name, stderr, f.Common)
	stop := cli.Signals(log)
	ctx, cancel := context.WithCancel(stop.Context)
	defer cancel()
	go func() {
		<-stop.Requested()
		cancel() // nothing is half done in a transaction
	}()
	o := schema.Options{Source: f.Source, Target: f.Target, Hypertables: f.Hypertables,
		SchemaOnly: f.SchemaOnly, LeaveOut: f.LeaveOut, NoOwner: f.NoOwner, NoPrivileges: f.NoPrivileges,
		Info: log.Info, Warn: log.Warn}
	if f.Print {
		o.Print = stdout
	}
	err := schema.Run(ctx, o)
	switch {
	case err != nil && stop.Asked():
		log.Warn("stopped")
		return cli.Stopped
	case err != nil:
		log.Error(err)
		return cli.Failed
	}
	return cli.OK
}
