"""PEFT methods: where they sit, what they compute, how they attach to a backbone."""
