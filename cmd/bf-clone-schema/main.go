// Command bf-clone-schema makes an empty target like the source, between
// versions and editions of TimescaleDB and from plain PostgreSQL.
package main

import (
	"context"

	"bf/lib/cli"
	"bf/lib/schema"
)

type flags struct {
	Source       string   `arg:"--source,env:BF_SOURCE" help:"connection string of the source" placeholder:"CONN"`
	Target       string   `arg:"--target,env:BF_TARGET" help:"connection string of the target, a new database" placeholder:"CONN"`
	Hypertables  []string `arg:"--hypertable,separate" help:"a plain table to become a hypertable; repeatable" placeholder:"TABLE=COLUMN[,INTERVAL]"`
	Print        bool     `arg:"--print" help:"write the SQL script instead of running it"`
	SchemaOnly   bool     `arg:"--schema-only" help:"without the rows of plain tables and the values of sequences"`
	LeaveOut     bool     `arg:"--leave-out" help:"make the target without what cannot be created"`
	NoOwner      bool     `arg:"-O,--no-owner" help:"everything belongs to the role that connects to the target"`
	NoPrivileges bool     `arg:"-x,--no-privileges" help:"grant nothing"`
	cli.Common
}

func (*flags) Description() string {
	return "Makes an empty target like the source: types, functions, tables, keys, indexes, privileges, and in the " +
		"target's language hypertables, compression, continuous aggregates and jobs, all jobs paused.\n" +
		"Plain tables come with their rows as of now. What cannot be created is named before anything is made; " +
		"all is made in one transaction, if its locks fit into the target's lock table."
}

func (*flags) Epilogue() string {
	return "  bf-clone-schema --source \"$SOURCE\" --target \"$TARGET\"\n" +
		"  bf-clone-schema --source \"$SOURCE\" --target \"$TARGET\" --print --schema-only >schema.sql\n" +
		"  bf-clone-schema --source \"$PLAIN\" --target \"$TARGET\" --hypertable 'metrics=time,1 day'"
}

func main() { cli.Main(schema.Name, &flags{}, run) }

func (f *flags) Check(e *cli.Env) error {
	switch {
	case f.Source == "":
		return e.Usagef("--source is required (or BF_SOURCE)")
	case f.Target == "":
		return e.Usagef("--target is required (or BF_TARGET)")
	}
	return nil
}

func run(e *cli.Env, f *flags) error {
	ctx, cancel := context.WithCancel(e.Stop.Context)
	defer cancel()
	go func() {
		<-e.Stop.Requested()
		cancel() // nothing is half done in a transaction
	}()
	o := schema.Options{Source: f.Source, Target: f.Target, Hypertables: f.Hypertables,
		SchemaOnly: f.SchemaOnly, LeaveOut: f.LeaveOut, NoOwner: f.NoOwner, NoPrivileges: f.NoPrivileges,
		Info: e.Log.Info, Warn: e.Log.Warn}
	if f.Print {
		o.Print = e.Stdout
	}
	err := schema.Run(ctx, o)
	if err != nil && e.Stop.Asked() {
		e.Log.Warn("stopped")
		return cli.Exit(cli.Stopped)
	}
	return err
}
