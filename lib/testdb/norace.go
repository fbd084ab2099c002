//go:build !race

package testdb

var buildFlags []string
