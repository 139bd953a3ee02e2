package main

import "context"

func (c *checker) online(context.Context) {}
