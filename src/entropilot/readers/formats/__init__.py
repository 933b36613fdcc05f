"""Read the forms that logs come in, whoever wrote them: tables, JSON documents, printed dicts, notebooks."""
