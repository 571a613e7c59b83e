process CONCLUDE {
    label 'process_single'
    cache false

    input:
    val(problem)
    path(last_output) // only so that this comes last, when all that could be made is there

    exec:
    // A process that fails, not an error() in a channel: that would stop the run while its files are still being published
    throw new IllegalStateException(problem)

    stub:
    throw new IllegalStateException(problem)
}
