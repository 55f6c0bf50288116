"""What a capacity plan is read and signed by: the day's load, prices, costs and their sensitivity, and a page of HTML.

`loadtest.capacity` computes the plan itself.
"""
