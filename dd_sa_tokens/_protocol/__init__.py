"""The API's protocol, pure: operations as requests, answers as values or failures, and what the headers say.

No I/O and no clock. Sources: https://docs.datadoghq.com/api/latest/service-accounts/ and
https://docs.datadoghq.com/api/latest/rate-limits/
"""
