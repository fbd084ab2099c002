package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"bf/lib/pg"

	"github.com/alexflint/go-arg"
)

// Flags are a command's flags: a pointer to a struct that embeds Common. An
// Epilogue method, which --help ends with, and a Rewrite method, which changes
// the arguments before they are parsed, are optional.
type Flags interface {
	// Description is what --help begins with.
	Description() string
	// Check refuses flags that do not go together with a usage error (Usagef).
	Check(*Env) error

	common() *Common
}

// Env is what a command has to work with.
type Env struct {
	Name           string
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer // a command writes messages to Log
	Log            *Log
	Stop           *Stop
}

// Options returns the options of the command's connections.
func (e *Env) Options() pg.Options { return pg.Options{Application: e.Name, Log: e.Log.Info} }

// Main runs a command and ends the process with its exit status.
func Main[F Flags](name string, flags F, run func(*Env, F) error) {
	os.Exit(Run(&Env{Name: name, Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}, flags, run))
}

// Run runs a command and returns its exit status. Log and Stop of env are not set
// yet.
func Run[F Flags](env *Env, flags F, run func(*Env, F) error) int {
	if done, status := parse(env, flags); done {
		return status
	}
	env.Log = NewLog(env.Name, env.Stderr, *flags.common())
	if err := flags.Check(env); err != nil {
		env.Log.Error(err)
		return status(err)
	}
	env.Stop = Signals(env.Log)
	err := run(env, flags)
	var exit Exit
	switch {
	case err == nil:
	case errors.As(err, &exit):
	case env.Stop.Context.Err() != nil:
		return Stopped // the error is only that of the aborted query
	default:
		env.Log.Error(err)
	}
	return status(err)
}

// parse reads the arguments. When done is true the command ends with status:
// help or the version was printed on stdout, or a usage error on stderr.
func parse(env *Env, flags Flags) (done bool, status int) {
	args := env.Args
	if r, ok := flags.(interface{ Rewrite([]string) []string }); ok {
		args = r.Rewrite(args)
	}
	p, err := arg.NewParser(arg.Config{Program: env.Name, Out: io.Discard, Exit: func(int) {}}, flags)
	if err != nil {
		panic("internal error: " + err.Error()) // the flags' declaration is wrong
	}
	switch err := p.Parse(args); {
	case err == nil && flags.common().Version:
		fmt.Fprintln(env.Stdout, env.Name, Build())
		return true, OK
	case err == nil:
		return false, OK
	case errors.Is(err, arg.ErrHelp):
		p.WriteHelp(env.Stdout)
		fmt.Fprintf(env.Stdout, "\nManual: man %s (overview: man bf)\n", env.Name)
		return true, OK
	default:
		NewLog(env.Name, env.Stderr, Common{}).Error(env.Usagef("%s", pg.Redact(err.Error())))
		return true, Usage
	}
}

// Exit is an exit status as an error, for a command that has printed its messages.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is what Usagef returns.
type usageError struct{ name, text string }

func (e *usageError) Error() string   { return e.text }
func (e *usageError) Suggest() string { return e.name + " --help" }
func (e *usageError) BadUsage() bool  { return true }

// Usagef returns an error about the arguments.
func (e *Env) Usagef(format string, args ...any) error {
	return &usageError{e.Name, fmt.Sprintf(format, args...)}
}

// status maps an error to the exit status. An error about an argument that only a
// server could find has a method BadUsage, or, for a --filter that is not a
// regular expression, its SQLSTATE.
func status(err error) int {
	var exit Exit
	var bad interface{ BadUsage() bool }
	switch {
	case err == nil:
		return OK
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &bad) && bad.BadUsage(), pg.Code(err) == pg.InvalidRegexp:
		return Usage
	}
	return Failed
}
