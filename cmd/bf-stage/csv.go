package main

import (
	"bf/lib/cli"
	"bf/lib/csv"
	"bf/lib/source"
	"bf/lib/stage"
)

// csvFlags say how CSV is written.
type csvFlags struct {
	Fields    string `arg:"--columns" help:"CSV: the columns that the fields fill, instead of the names in the header; - leaves a field out" placeholder:"A,B,-,C"`
	NoHeader  bool   `arg:"--no-header" help:"CSV: the first line is data"`
	Delimiter string `arg:"--delimiter" help:"CSV: the character between fields; a comma by default" placeholder:"CHAR"`
	Quote     string `arg:"--quote" help:"CSV: the character around fields; a double quote by default" placeholder:"CHAR"`
	Escape    string `arg:"--escape" help:"CSV: the character before a quote in a quoted field; the quote by default" placeholder:"CHAR"`
	Null      string `arg:"--null" help:"CSV: an unquoted field with this text is NULL; an empty one by default" placeholder:"STRING"`
	Encoding  string `arg:"--encoding" help:"CSV: its encoding: utf8 (the default), latin1, latin2, latin9, windows-1250, -1251, -1252 or koi8-r" placeholder:"NAME"`
	Zone      string `arg:"--zone" help:"CSV: the time zone of times without an offset; UTC by default" placeholder:"NAME"`
	TimeUnit  string `arg:"--time-unit" help:"CSV: the time column is a number since 1970, in s, ms, us or ns" placeholder:"UNIT"`
}

func (f *flags) isCommand() bool { return source.ParseCommand(f.Source, nil) != nil }

// checkCommand refuses what does not go with a source that is a command.
func (f *flags) checkCommand(e *cli.Env) error {
	switch {
	case f.Target == "":
		return e.Usagef("--target is required with a command: it is run once per chunk of the target")
	case f.Into == "":
		return e.Usagef("--into is required with a command: the hypertable that it fills")
	case f.From == "":
		return e.Usagef("--from is required with a command: " +
			"what it prints replaces all that the target has from there to --until")
	case f.Filter != "" || f.Up || f.Down || f.Snapshot != "" || f.Maps != nil || f.SkipNull ||
		f.Scan != "auto" || f.Columns:
		return e.Usagef("--filter, --map, --scan, --skip-null-times, --columnstore, the cascades " +
			"and --snapshot do not go with a command")
	case f.NoHeader && f.Fields == "":
		return e.Usagef("--columns is required with --no-header")
	}
	return nil
}

// files is how the CSV is written, for package stage.
func (f *flags) files() stage.Files {
	return stage.Files{Into: f.Into, Columns: f.Fields, NoHeader: f.NoHeader, Dialect: csv.Dialect{
		Delimiter: f.Delimiter, Quote: f.Quote, Escape: f.Escape, Null: f.Null, Encoding: f.Encoding,
		Zone: f.Zone, Unit: f.TimeUnit}}
}
