// Command hello is a binary for a machine that Lambda does not have.
package main

func main() { println("hello") }
